"""The student: trained from a store; the teacher is never imported, loaded or needed."""
