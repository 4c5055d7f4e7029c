"""PostgreSQL and Valkey for a laptop: servers from wheels, in one private folder, shared by the processes that use it.

A *guardian* process owns both servers. Every process that uses the folder holds a connection to the guardian; when the
last connection is gone, however its process ended, the guardian stops the servers and exits.
"""

from data_layer.embedded.servers import EmbeddedAddresses, EmbeddedServers

__all__ = ["EmbeddedAddresses", "EmbeddedServers"]
