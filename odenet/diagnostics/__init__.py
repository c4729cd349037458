"""What a trained network is numerically: whether it is an ODE, how smooth, how stable, how reversible."""
