"""The study: many runs of the recipes at one scale, as a list that a file describes and a loop works off."""
