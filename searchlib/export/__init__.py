"""Making models: from published weights to a .pte file and its card.

Needs the extra `export` (torch, onnxruntime); nothing else in the package imports this room.
"""
