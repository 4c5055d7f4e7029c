"""Pages for people, below ``/console``: projects and their versions, the own account, the health of everything.

Rendered on the server; every page that reads works without JavaScript. What a person may see
and do is decided by the services.
"""

from data_layer.extras import require_extra

require_extra("service", "the console", "fastapi", "jinja2", "pygments", "babel")
