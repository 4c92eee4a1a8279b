//! Publisher and subscribers together, in one process or several.

mod tiers;
