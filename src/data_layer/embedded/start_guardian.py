"""The program of the guardian process; run by path.

Unlike ``python -m data_layer.embedded.guardian`` it leaves ``data_layer/__init__.py`` out, which would import
SQLAlchemy and the rest of the library into a process that needs the standard library only: half a second and 60 MB.
"""

import sys
import types
from pathlib import Path

package = types.ModuleType("data_layer")
package.__path__ = [str(Path(__file__).parents[1])]
sys.modules["data_layer"] = package

from data_layer.embedded.guardian import main  # noqa: E402 (the package must be in place first)

main()
