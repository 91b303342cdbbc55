"""What people see: scalars, figures, tables, messages."""
