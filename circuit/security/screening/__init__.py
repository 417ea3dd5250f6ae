"""What texts from outside hold that is meant for a model and not for people: found, told, and made harmless."""
