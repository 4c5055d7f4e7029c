"""The same as the program ``data-layer``, for a Python that has no such program beside it."""

from data_layer.cli import main

if __name__ == "__main__":
    main()
