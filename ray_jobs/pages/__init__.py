"""Pages of HTML that need nothing beside them: one style, tables, curves. Knows no run, case or checkpoint."""
