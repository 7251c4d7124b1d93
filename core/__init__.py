"""What every room knows: errors, frozen values that stages hand to each other, atomic files."""
