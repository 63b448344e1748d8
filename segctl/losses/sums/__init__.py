"""The sums behind the Jaccard / Dice / Tversky losses, plain and fast."""
