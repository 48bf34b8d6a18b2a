KEPT = []
