"""How far a prediction can be off: learned from patients who taught none of the methods, told of new ones."""
