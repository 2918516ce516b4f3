mod edge_cases;
mod upstream;
