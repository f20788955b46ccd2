"""Contract suites and fakes, for us and for third parties."""
