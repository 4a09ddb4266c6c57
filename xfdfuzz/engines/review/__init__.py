"""What a reviewer asks of a kernel, answered by machine: a field's life, the relations that hold of it, every WARN."""
