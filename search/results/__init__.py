"""What a search has found: tables, pictures, a page, specs, and the best trained at full length."""
