"""What people read: tables, figures, the paper's claims with their verdicts, and one page of all of it."""
