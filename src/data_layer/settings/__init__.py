"""The parts of ``Settings``, each with its own fields and rules; ``data_layer.config`` puts them together."""
