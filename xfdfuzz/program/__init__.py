"""Programs: ops, the text format, and the executor that turns program + kernel into steps."""
