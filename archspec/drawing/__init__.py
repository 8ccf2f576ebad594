"""Pictures: a plan from image to classes, and networks among one another. Imported late, by what draws."""
