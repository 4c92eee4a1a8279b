//! The web page: the files that `gateway/web` is built to, embedded in the binary.
//!
//! They hold no data: what the page shows it asks for as any client does, on the routes of the gateway. Names do not change with the content, so a
//! browser asks each time whether it has the latest, by tag.

use axum::{
    Router,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use xxhash_rust::xxh3::xxh3_64;

/// What the page may do: its own script and style, connections to the gateway that it came from, and nothing else. The digest is that of the one
/// style that lightweight-charts writes into a document, for its attribution.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'sha256-3pRED1tOXas1FXFoPb9TGCjmYe9XQsmO9OV23khV2nY='; \
                      connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
#[derive(Clone, Copy, Debug)]
struct Asset {
    path: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
}

const ASSETS: [Asset; 5] = [
    Asset { path: "/", content_type: "text/html; charset=utf-8", bytes: include_bytes!("../web/dist/index.html") },
    Asset { path: "/page.js", content_type: "text/javascript; charset=utf-8", bytes: include_bytes!("../web/dist/page.js") },
    Asset { path: "/page.css", content_type: "text/css; charset=utf-8", bytes: include_bytes!("../web/dist/page.css") },
    Asset { path: "/icon.svg", content_type: "image/svg+xml", bytes: include_bytes!("../web/dist/icon.svg") },
    Asset { path: "/licenses.txt", content_type: "text/plain; charset=utf-8", bytes: include_bytes!("../web/dist/licenses.txt") },
];

/// The routes of every file.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let route = |router: Router<S>, asset: Asset| {
        let tag = format!("\"{:016x}\"", xxh3_64(asset.bytes));
        let tag = HeaderValue::from_str(&tag).expect("digits are sound in a header");
        router.route(asset.path, get(async move |headers: HeaderMap| answer(asset, &tag, &headers)))
    };
    ASSETS.into_iter().fold(Router::new(), route)
}

fn answer(asset: Asset, tag: &HeaderValue, headers: &HeaderMap) -> Response {
    let always = [
        (header::ETAG, tag.clone()),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| is_known(known, tag)) {
        return (StatusCode::NOT_MODIFIED, always).into_response();
    }
    (always, [(header::CONTENT_TYPE, asset.content_type)], asset.bytes).into_response()
}

/// Whether one of the tags that a browser knows is this one.
fn is_known(known: &HeaderValue, tag: &HeaderValue) -> bool {
    let (Ok(known), Ok(tag)) = (known.to_str(), tag.to_str()) else { return false };
    known.split(',').any(|it| it.trim().trim_start_matches("W/") == tag)
}
