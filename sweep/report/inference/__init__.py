"""What runs say about families of networks: estimates, decisions, what a design can show. Arrays in, numbers out."""
