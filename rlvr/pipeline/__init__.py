"""A chain of stages as one file: `recipe` reads and checks it, `chain` runs it, `report` says what came of it."""
