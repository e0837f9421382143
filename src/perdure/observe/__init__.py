"""Stores wherever they lie, looked at without their code, their lease or a write."""
