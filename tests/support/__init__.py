"""What tests share: wired parts, stand-ins of peers, processes, samples."""
