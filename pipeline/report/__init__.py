"""What a person looks at: one self-contained page about teacher, students and store."""
