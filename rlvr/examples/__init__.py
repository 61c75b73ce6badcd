"""What the stages learn from: demonstrations, preference pairs, labels; read, checked, and made from runs."""
