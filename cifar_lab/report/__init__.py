"""What run directories tell, without torch: records, a table, plots."""
