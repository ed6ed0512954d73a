//! Reads a whole template.

use std::{collections::BTreeMap, fs, path::Path};

use super::{
    api::Api,
    conditions::Conditions,
    error::{DEFAULT_FILE, TemplateError},
    fields::Fields,
    functions::{DEFAULT_BUS, Globals, function, own_rule},
    model::{FunctionSpec, Parameters, Rule, Template, Trigger},
    nested::Nested,
    parameters,
    policies::managed_policy,
    references::References,
    resource::{Resource, WATCHING, alias, bus, key, queue, resource, table},
};
use crate::{
    names::{key_arn, queue_arn},
    yaml::{Node, parse},
};

impl Template {
    pub fn load(path: &Path) -> Result<Self, TemplateError> {
        Self::load_with(path, &Parameters::default())
    }

    pub fn load_with(path: &Path, parameters: &Parameters) -> Result<Self, TemplateError> {
        let directory = path.parent().filter(|folder| *folder != Path::new(""));
        let directory = directory.unwrap_or(Path::new("."));
        let file = path.display().to_string();
        let template = read(path).and_then(|text| Self::parse_in(directory, &text, parameters));
        match template {
            Ok(template) => Ok(Self { file, ..template }),
            Err(error) => Err(error.within(&file)),
        }
    }

    pub fn parameters_of(path: &Path) -> Result<Vec<String>, TemplateError> {
        let declared = |text: String| {
            let mut root = Fields::new("the template", parse(&text).map_err(TemplateError::at)?)?;
            let parameters = root.take("Parameters");
            parameters.map_or(Ok(vec![]), parameters::names)
        };
        read(path)
            .and_then(declared)
            .map_err(|error| error.within(&path.display().to_string()))
    }

    /// Reads a text without nested templates.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        Self::parse_in(Path::new(""), text, &Parameters::default())
    }

    /// Reads a text, with values for some parameters. Nested templates are read from `directory`.
    pub fn parse_in(
        directory: &Path,
        text: &str,
        parameters: &Parameters,
    ) -> Result<Self, TemplateError> {
        let mut root = Fields::new("the template", parse(text).map_err(TemplateError::at)?)?;
        root.ignore(&[
            "AWSTemplateFormatVersion",
            "Transform",
            "Description",
            "Metadata",
            "Outputs",
        ]);
        let stack = stack_name(directory);
        let given = parameters::values(root.take("Parameters"), parameters)?;
        let mut names = References::new(&stack, given);
        let conditions = Conditions::new(root.take("Conditions"), &names)?;
        conditions.check(root.take("Rules"), &names)?;
        let globals = match root.take("Globals") {
            Some(globals) => conditions.choose(globals)?,
            None => None,
        };
        let mut nested = Nested::new(directory);
        let mut resources = vec![];
        for (id, node) in Fields::new("Resources", root.required("Resources")?)?.entries {
            if let Some(resource) = resource(&id, node, &conditions, &names)? {
                if resource.kind == "AWS::CloudFormation::Stack" {
                    let outputs = nested.take_in(&resource, &names)?;
                    names.stack(&id, outputs);
                } else {
                    names.resource(&id, &resource.kind, &resource.properties)?;
                }
                resources.push(resource);
            }
        }
        root.finish()?;

        // Globals refer to resources, so they are read after all resources are known.
        let globals = Globals::new(globals, &names)?;
        let mut template = Self {
            file: DEFAULT_FILE.to_owned(),
            stack,
            queues: nested.queues,
            parameters: names.given(),
            ..Self::default()
        };
        let mut api = globals.api.clone();
        let mut policies = BTreeMap::new();
        let (mut aliases, mut rules) = (vec![], vec![]);
        for Resource {
            id,
            kind,
            line,
            properties,
            metadata,
        } in resources
        {
            let properties = Fields::new(&id, properties)?;
            match kind.as_str() {
                "AWS::DynamoDB::Table" => template.tables.push(table(&id, properties, &names)?),
                "AWS::Events::EventBus" => template.buses.push(bus(properties, &names)?),
                "AWS::Events::Rule" => rules.push(own_rule(&id, properties, &names)?),
                "AWS::KMS::Key" => template.keys.push(key(&id, properties)?),
                "AWS::KMS::Alias" => aliases.push((alias(properties, &names)?, line)),
                "AWS::SQS::Queue" => template.queues.push(queue(&id, properties, &names)?),
                "AWS::Serverless::Function" => {
                    let place = (id.as_str(), line);
                    let function = function(place, properties, metadata, &globals, &names)?;
                    template.functions.push(function);
                }
                "AWS::Serverless::HttpApi" => {
                    api = Api::new(properties, &globals.api, &names)?;
                }
                "AWS::IAM::ManagedPolicy" => {
                    policies.insert(id, managed_policy(properties, &names)?);
                }
                // Its resources are already known.
                "AWS::CloudFormation::Stack" => {}
                _ if WATCHING.contains(&kind.as_str()) => {}
                // A function implements its steps; locally an operator runs them.
                "AWS::Serverless::StateMachine" => {}
                _ => {
                    return Err(TemplateError::new(
                        line,
                        format!("the type {kind} of {id} is not supported by the local system"),
                    ));
                }
            }
        }
        template.read_scopes(&api)?;
        template.connect_all(rules, &names)?;
        for ((alias, target), line) in aliases {
            let mut keys = template.keys.iter_mut();
            let Some(key) = keys.find(|key| target == key.id || target == key_arn(&key.id)) else {
                let problem = format!("{alias} names the key {target}, which does not exist");
                return Err(TemplateError::new(line, problem));
            };
            key.aliases.push(alias);
        }
        template.throttling = api.throttling(&template.functions)?;
        template.authorizer = api.authorizer;
        template.boundary = globals.boundary.and_then(|name| policies.remove(&name));
        Ok(template)
    }

    /// Sets the scopes of every route, and checks that no two routes are the same.
    fn read_scopes(&mut self, api: &Api) -> Result<(), TemplateError> {
        let mut routes = BTreeMap::new();
        for function in &mut self.functions {
            for trigger in &mut function.triggers {
                if let Trigger::Http(route) = trigger {
                    route.scopes = api.scopes(route)?;
                    if let Some(other) = routes.insert(route.shape(), route.key()) {
                        let problem = format!("{} and {other} are the same route", route.key());
                        return Err(TemplateError::new(route.line, problem));
                    }
                }
            }
        }
        Ok(())
    }

    /// Gives rules to their functions, and checks that every rule names a bus of the template.
    fn connect_all(
        &mut self,
        rules: Vec<(Rule, Node)>,
        names: &References,
    ) -> Result<(), TemplateError> {
        for (rule, arn) in rules {
            self.connect(rule, &arn, names)?;
        }
        self.check_buses()
    }

    /// Gives a rule to its function, or to the one that receives the messages of its queue.
    fn connect(
        &mut self,
        mut rule: Rule,
        arn: &Node,
        names: &References,
    ) -> Result<(), TemplateError> {
        let target = names.text(arn)?;
        for function in &mut self.functions {
            if [function.arn(), function.alias_arn()].contains(&target) {
                function.triggers.push(Trigger::Rule(rule));
                return Ok(());
            }
            for trigger in &mut function.triggers {
                if let Trigger::Queue(mapping) = trigger
                    && target == queue_arn(&mapping.queue)
                {
                    rule.target.queue = Some(mapping.queue.clone());
                    mapping.rules.push(rule);
                    return Ok(());
                }
            }
        }
        let problem = "the target must be a function, or a queue that a function reads";
        Err(TemplateError::new(arn.line, problem))
    }

    /// Checks that every rule names a bus of the template.
    fn check_buses(&self) -> Result<(), TemplateError> {
        for rule in self.functions.iter().flat_map(FunctionSpec::rules) {
            if rule.bus != DEFAULT_BUS && !self.buses.contains(&rule.bus) {
                let problem = format!("unknown bus {}", rule.bus);
                return Err(TemplateError::new(rule.line, problem));
            }
        }
        Ok(())
    }
}

/// The name of the stack of a text, which has no folder.
const STACK: &str = "cairn";

/// Returns the name of a project, which is that of its local stack: the first `stack_name` in
/// `samconfig.toml` without `-dev`, or the name of the folder.
fn stack_name(directory: &Path) -> String {
    let config = fs::read_to_string(directory.join("samconfig.toml")).unwrap_or_default();
    let configured = config.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        let value = value.trim().strip_prefix('"')?.split_once('"')?.0;
        (name.trim() == "stack_name").then_some(value)
    });
    // A text has an empty path, which leads to no folder.
    let folder = directory.canonicalize().ok();
    let folder = folder.as_deref().and_then(Path::file_name);
    let folder = folder.map(|name| name.to_string_lossy().into_owned());
    let name = configured.map(|name| name.strip_suffix("-dev").unwrap_or(name).to_owned());
    let name = name.or(folder).unwrap_or_default();
    // https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_CreateStack.html
    let characters = name.chars().map(|one| match one {
        one if one.is_ascii_alphanumeric() => one,
        _ => '-',
    });
    let valid: String = characters.collect();
    let valid = valid.trim_start_matches(|first: char| !first.is_ascii_alphabetic());
    match valid.trim_end_matches('-') {
        "" => STACK.to_owned(),
        name => name.to_owned(),
    }
}

fn read(path: &Path) -> Result<String, TemplateError> {
    fs::read_to_string(path)
        .map_err(|error| TemplateError::of_all(format!("reading the file failed: {error}")))
}
