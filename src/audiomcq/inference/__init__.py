"""Ask models questions and keep what they answer: locally or at a server, under controls, in one store."""
