"""Typed JSON: values, arguments, results and errors as text, and back."""
