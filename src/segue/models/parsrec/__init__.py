"""PARSRec: sessions completed step by step."""
