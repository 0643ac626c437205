"""Making axes longer: silent units, copies, divisions, and where the fan-in of new units comes from."""
