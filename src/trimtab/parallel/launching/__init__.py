"""How rank processes come to be, what they are told, and how they are watched."""
