"""Pages in a browser on this machine: a sample that is drawn where one looks, and images enlarged and filled."""
