"""Many runs under one budget: what is planned, who does it, and how far it is."""
