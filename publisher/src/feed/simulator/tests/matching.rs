//! Price-time priority against a matcher that is too simple to be wrong.

use super::*;
use proptest::prelude::*;

/// Resting orders in the order of their coming.
#[derive(Default)]
struct Naive(Vec<NewOrder>);

impl Naive {
    /// The order that `order` meets: the best price that it reaches, and of those the one that came first.
    fn met(&self, order: &NewOrder) -> Option<usize> {
        let reaches = |price: i64| if order.side == BookSide::Bid { price <= order.price } else { price >= order.price };
        let rank = |price: i64| if order.side == BookSide::Bid { price } else { -price };
        let candidates = self.0.iter().enumerate().filter(|(_, it)| it.side != order.side && reaches(it.price));
        candidates.min_by_key(|(index, it)| (rank(it.price), *index)).map(|(index, _)| index)
    }

    fn submit(&mut self, mut order: NewOrder, rests: Rest) -> Vec<Fill> {
        let mut fills = Vec::new();
        while order.quantity > 0 {
            let Some(index) = self.met(&order) else { break };
            let maker = &mut self.0[index];
            let quantity = maker.quantity.min(order.quantity);
            fills.push(Fill { maker_id: maker.id, maker: maker.owner, price: maker.price, quantity });
            maker.quantity -= quantity;
            order.quantity -= quantity;
            if maker.quantity == 0 {
                self.0.remove(index);
            }
        }
        if order.quantity > 0 && rests == Rest::InBook {
            self.0.push(order);
        }
        fills
    }

    fn cancel(&mut self, id: u64) {
        let index = self.0.iter().position(|it| it.id == id).expect("what is cancelled rests");
        self.0.remove(index);
    }

    /// Totals by price, best first.
    fn levels(&self, side: BookSide) -> Vec<(i64, i64)> {
        let mut totals = BTreeMap::new();
        self.0.iter().filter(|it| it.side == side).for_each(|it| *totals.entry(it.price).or_insert(0) += it.quantity);
        let mut levels: Vec<_> = totals.into_iter().collect();
        if side == BookSide::Bid {
            levels.reverse();
        }
        levels
    }

    fn check(&self, book: &OrderBook) {
        for side in [BookSide::Bid, BookSide::Ask] {
            assert_eq!(book.levels(side).collect::<Vec<_>>(), self.levels(side));
        }
    }
}

#[derive(Clone, Debug)]
enum Ask {
    Order { is_bid: bool, price: i64, quantity: i64, rests: bool },
    Cancel(prop::sample::Index),
}

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    // Fewer prices than the ring has, so that it never becomes too narrow; across its end, so that it wraps.
    let order = (any::<bool>(), 1_000i64..1_060, 1i64..20, prop::bool::weighted(0.8));
    let order = order.prop_map(|(is_bid, price, quantity, rests)| Ask::Order { is_bid, price, quantity, rests });
    prop::collection::vec(prop_oneof![4 => order, 1 => any::<prop::sample::Index>().prop_map(Ask::Cancel)], 1..400)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn every_trade_is_the_naive_matchers(asks in asks()) {
        let (mut book, mut naive) = (OrderBook::new(8, 400), Naive::default());
        let mut handles = HashMap::new();
        let mut published = [Side::new(), Side::new()];
        for (id, ask) in (1..).zip(&asks) {
            match *ask {
                Ask::Order { is_bid, price, quantity, rests } => {
                    let side = if is_bid { BookSide::Bid } else { BookSide::Ask };
                    let order = NewOrder { id, owner: id as u32 % 3, side, price, quantity };
                    let rests = if rests { Rest::InBook } else { Rest::Never };
                    let (mut fills, expected) = (Vec::new(), naive.submit(order, rests));
                    let (left, handle) = book.submit(order, rests, |fill| fills.push(fill));
                    prop_assert_eq!(&fills, &expected);
                    prop_assert_eq!(left, quantity - expected.iter().map(|fill| fill.quantity).sum::<i64>());
                    handles.extend(handle.map(|handle| (id, handle)));
                }
                Ask::Cancel(chosen) if !naive.0.is_empty() => {
                    let order = naive.0[chosen.index(naive.0.len())];
                    naive.cancel(order.id);
                    prop_assert_eq!(book.cancel(handles[&order.id]).quantity, order.quantity);
                }
                Ask::Cancel(_) => {}
            }
            naive.check(&book);
            if id % 5 == 0 {
                book.publish_changes(|side, price, quantity| apply(&mut published[side as usize], &[Level { price, quantity }]));
                let [bids, asks] = &published;
                prop_assert!(bids.iter().rev().map(|(price, total)| (*price, *total)).eq(book.levels(BookSide::Bid)));
                prop_assert!(asks.iter().map(|(price, total)| (*price, *total)).eq(book.levels(BookSide::Ask)));
            }
        }
    }
}

/// Everything that whole simulations ask of their engines, asked of naive matchers too.
#[test]
fn every_trade_of_a_simulation_is_price_time_correct() {
    for spec in ["events=20000,instruments=2,levels=60,accounts=4", "seed=2,events=20000,instruments=1,levels=5,trades=90,accounts=8"] {
        let mut feed = SimulatorFeed::new(SimulatorSpec::parse(spec).unwrap()).unwrap();
        bind(&mut feed);
        let mut naives = Vec::new();
        for market in &mut feed.markets {
            let mut naive = Naive::default();
            for side in [BookSide::Bid, BookSide::Ask] {
                for (price, _) in market.book.levels(side) {
                    market.book.visit(price, |_, it| {
                        let Order { id, price, quantity, owner, side, .. } = *it;
                        naive.0.push(NewOrder { id, owner, side, price, quantity });
                        std::ops::ControlFlow::Continue(())
                    });
                }
            }
            market.book.log = Some(Vec::new());
            naives.push(naive);
        }
        while feed.next().unwrap().is_some() {}
        let mut fill_count = 0;
        for (market, naive) in feed.markets.iter_mut().zip(&mut naives) {
            for step in market.book.log.take().unwrap() {
                match step {
                    Step::Submit(order, rests, fills) => {
                        assert_eq!(naive.submit(order, rests), fills, "{spec}");
                        fill_count += fills.len();
                    }
                    Step::Cancel(id) => naive.cancel(id),
                }
            }
            naive.check(&market.book);
        }
        assert!(fill_count > 5_000, "{spec}: {fill_count} trades");
    }
}
