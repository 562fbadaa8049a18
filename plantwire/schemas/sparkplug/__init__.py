"""The payload schema of Sparkplug B 3.0, the standard's own, and its generated Python code.

`sparkplug_b.proto` is the work of the Eclipse Tahu project, under the Eclipse Public License 2.0 that it
names; `sparkplug_b_pb2.py` is what protoc 29 (protobuf 5.29) makes of it:
``protoc --python_out=. --mypy_out=. sparkplug_b.proto``.
Not here: what the payloads mean (`gateway.sparkplug`).
"""
