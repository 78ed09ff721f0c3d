"""PARSRec: step-by-step completion of sessions."""
