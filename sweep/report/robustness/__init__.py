"""What the report says of networks measured otherwise than as they were trained."""
