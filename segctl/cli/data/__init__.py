"""`segctl data …`."""
