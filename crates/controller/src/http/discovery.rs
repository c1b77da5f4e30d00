//! The discovery document: enough of it for the Arvados Python SDK.

use axum::extract::Request;
use axum::http::{Response, header};
use longshore_http::json;
use serde_json::{Map, Value, json};

use super::{MAX_REQUEST_BYTES, list};

pub(super) async fn document(request: Request) -> Response<axum::body::Body> {
    // Clients take the root from here; it is where they asked.
    let host = request.headers().get(header::HOST);
    let host = host
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost");
    let root = format!("https://{host}/");
    json(&json!({
        "kind": "discovery#restDescription",
        "discoveryVersion": "v1",
        "id": "arvados:v1", "name": "arvados", "version": "v1",
        "revision": "20250101", "source_version": "0000000", "sourceVersion": "0000000",
        "generatedAt": "2025-01-01T00:00:00Z",
        "title": "Longshore", "description": "Containers and container requests",
        "documentationLink": "",
        "defaultTrashLifetime": 0, "uuidPrefix": "local",
        "maxItemsPerResponse": list::MAX_LIMIT, "maxRequestSize": MAX_REQUEST_BYTES,
        "protocol": "rest", "baseUrl": format!("{root}arvados/v1/"), "basePath": "/arvados/v1/",
        "rootUrl": root, "servicePath": "arvados/v1/", "batchPath": "batch",
        "parameters": { "alt": {
            "type": "string", "description": "Data format", "default": "json",
            "enum": ["json"], "location": "query",
        } },
        "auth": { "oauth2": { "scopes": {} } },
        "schemas": {
            "Container": { "id": "Container", "type": "object", "properties": {} },
            "ContainerList": { "id": "ContainerList", "type": "object", "properties": {} },
            "ContainerRequest": { "id": "ContainerRequest", "type": "object", "properties": {} },
            "ContainerRequestList": { "id": "ContainerRequestList", "type": "object", "properties": {} },
            "ApiClientAuthorization": { "id": "ApiClientAuthorization", "type": "object", "properties": {} },
            "User": { "id": "User", "type": "object", "properties": {} },
        },
        "resources": {
            "containers": { "methods": {
                "get": get("containers", "Container"),
                "list": list_of("containers", "ContainerList"),
                "update": change("containers", "container", "Container"),
            } },
            "container_requests": { "methods": {
                "create": create("container_requests", "container_request", "ContainerRequest"),
                "get": get("container_requests", "ContainerRequest"),
                "list": list_of("container_requests", "ContainerRequestList"),
                "update": change("container_requests", "container_request", "ContainerRequest"),
            } },
            "api_client_authorizations": { "methods": {
                "current": plain("api_client_authorizations", "current", "ApiClientAuthorization"),
            } },
            "users": { "methods": { "current": plain("users", "current", "User") } },
            "configs": { "methods": { "get": {
                "id": "arvados.configs.get", "path": "config", "httpMethod": "GET",
                "parameters": {}, "response": {}, "scopes": [],
            } } },
        },
    }))
}

fn method(resource: &str, name: &str, path: &str, verb: &str, response: &str) -> Value {
    json!({
        "id": format!("arvados.{resource}.{name}"), "path": path, "httpMethod": verb,
        "description": "", "parameters": {}, "response": { "$ref": response }, "scopes": [],
    })
}

fn plain(resource: &str, name: &str, response: &str) -> Value {
    method(
        resource,
        name,
        &format!("{resource}/{name}"),
        "GET",
        response,
    )
}

fn get(resource: &str, response: &str) -> Value {
    let mut method = method(
        resource,
        "get",
        &format!("{resource}/{{uuid}}"),
        "GET",
        response,
    );
    method["parameters"] = parameters(&[("uuid", "string", "path"), ("select", "array", "query")]);
    method["parameterOrder"] = json!(["uuid"]);
    method
}

fn list_of(resource: &str, response: &str) -> Value {
    let mut method = method(resource, "list", resource, "GET", response);
    method["parameters"] = parameters(&[
        ("filters", "array", "query"),
        ("order", "array", "query"),
        ("select", "array", "query"),
        ("limit", "integer", "query"),
        ("offset", "integer", "query"),
        ("count", "string", "query"),
    ]);
    method
}

fn create(resource: &str, object: &str, response: &str) -> Value {
    let mut method = method(resource, "create", resource, "POST", response);
    method["parameters"] = parameters(&[("select", "array", "query")]);
    method["request"] = body(object, response);
    method
}

fn change(resource: &str, object: &str, response: &str) -> Value {
    let path = format!("{resource}/{{uuid}}");
    let mut method = method(resource, "update", &path, "PUT", response);
    method["parameters"] = parameters(&[("uuid", "string", "path"), ("select", "array", "query")]);
    method["parameterOrder"] = json!(["uuid"]);
    method["request"] = body(object, response);
    method
}

fn body(object: &str, schema: &str) -> Value {
    let mut properties = Map::new();
    properties.insert(object.to_owned(), json!({ "$ref": schema }));
    json!({ "required": true, "properties": properties })
}

fn parameters(wanted: &[(&str, &str, &str)]) -> Value {
    let one = |(name, kind, location): &(&str, &str, &str)| {
        let required = *location == "path";
        let parameter = json!({
            "type": kind, "required": required, "location": location, "description": "",
        });
        ((*name).to_owned(), parameter)
    };
    Value::Object(wanted.iter().map(one).collect())
}
