"""What the product can do. Transactions begin and end here."""
