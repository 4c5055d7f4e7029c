"""What is made from the description of the HTTP API: the committed document and both clients (`make clients`)."""
