//! Whether there is room on the disk, as far as was said.

use tapewire_storage::StoreStep;

/// What was said last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// Nothing, or that there is some again.
    #[default]
    There,
    /// That there is none.
    Gone,
}

/// Whether something is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It has changed.
    News,
    /// It is as it was said.
    Already,
}

impl Room {
    /// There is none.
    pub fn lose(&mut self) -> Said {
        self.turn(Self::Gone)
    }

    /// A step was done. Only where a segment was taken, or everything was done, is it known that nothing else wants room: what is given up or
    /// compacted is so for want of it, too.
    pub fn find(&mut self, step: StoreStep) -> Said {
        match step {
            StoreStep::Taken { .. } | StoreStep::StateSaved | StoreStep::Idle => self.turn(Self::There),
            _ => Said::Already,
        }
    }

    fn turn(&mut self, to: Self) -> Said {
        if std::mem::replace(self, to) == to { Said::Already } else { Said::News }
    }
}

#[cfg(test)]
mod tests {
    use super::{Room, Said};
    use tapewire_storage::StoreStep;

    #[test]
    fn a_change_is_said_once() {
        let mut room = Room::default();
        assert_eq!(room.find(StoreStep::Idle), Said::Already);
        for _ in 0..2 {
            assert_eq!(room.lose(), Said::News);
            assert_eq!((room.lose(), room.lose()), (Said::Already, Said::Already));
            // It makes room, and needs none.
            assert_eq!(room.find(StoreStep::Dropped { first: 1, last: 2 }), Said::Already);
            assert_eq!(room.lose(), Said::Already);
            assert_eq!(room.find(StoreStep::Taken { first: 3, last: 4 }), Said::News);
            assert_eq!(room.find(StoreStep::Idle), Said::Already);
        }
    }
}
