"""What networks cost where they run: `subjects` says what can be measured, `measure` takes the time and the memory."""
