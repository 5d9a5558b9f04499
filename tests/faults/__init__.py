"""The registry while what it stands on fails."""
