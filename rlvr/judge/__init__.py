"""Preference pairs that a judge makes: what is asked, how answers are read and kept, what they are worth."""
