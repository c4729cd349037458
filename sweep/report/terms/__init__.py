"""On what terms the families of a report were compared."""
