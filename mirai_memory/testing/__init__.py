"""What helps to test an application that keeps its memory here."""
