"""Screenshot to Code with a memory: around its application, what its WebSocket says is recorded, and shown again.

*Forward first, record after*: messages pass at once, and what is noted of them lies in bounded memory until the
services have it. Neither the database nor the storage is ever waited for on the way of a message.

- ``protocol``: everything that is known of the WebSocket of the application.
- ``page`` and ``page.js``: everything that is known of its page.
- ``tape``, ``run``, ``spill``, ``recorder``: what was said, on its way into the tables.
- ``connection``: stands between the browser and the application.
- ``people``: who it is.
- ``application``: puts everything on one port.
"""
